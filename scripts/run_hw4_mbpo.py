from cs285.scripts.run_hw4_mbpo import main

if __name__ == "__main__":
    raise SystemExit(main())
