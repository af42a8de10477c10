from cs285.scripts.export_run import main

if __name__ == "__main__":
    raise SystemExit(main())
