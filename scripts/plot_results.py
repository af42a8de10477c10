from cs285.scripts.plot_results import main

if __name__ == "__main__":
    raise SystemExit(main())
