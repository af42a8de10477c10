from cs285.scripts.diagnose import main

if __name__ == "__main__":
    raise SystemExit(main())
