from cs285.scripts.filter_events import main

if __name__ == "__main__":
    raise SystemExit(main())
