"""Campaigns: random attacks on runs. Each is a module with a `main`; docs/reliability.md."""
