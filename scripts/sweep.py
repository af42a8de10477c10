from cs285.scripts.sweep import main

if __name__ == "__main__":
    raise SystemExit(main())
