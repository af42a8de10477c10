from cs285.scripts.read_results import main

if __name__ == "__main__":
    raise SystemExit(main())
