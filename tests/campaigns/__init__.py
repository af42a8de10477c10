"""Campaigns: many random attacks on runs. docs/reliability.md describes them."""
