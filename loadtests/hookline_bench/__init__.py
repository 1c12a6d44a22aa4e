"""The load-test harness: what Hookline does on this machine, each figure beside the floor that it cannot pass."""
