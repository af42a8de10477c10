from cs285.scripts.make_starter import main

if __name__ == "__main__":
    raise SystemExit(main())
