from cs285.scripts.reproduce import main

if __name__ == "__main__":
    raise SystemExit(main())
