from cs285.scripts.run_pilco import main

if __name__ == "__main__":
    raise SystemExit(main())
