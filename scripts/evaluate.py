from cs285.scripts.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
