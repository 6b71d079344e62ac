"""What the node remembers of its jobs: offers, receipts, checks and verdicts, durably, and no prompt or answer.

`store.open_ledger` is the node's own ledger, `reader.read_ledger` a read-only view for the command line,
`fake.FakeLedger` an in-memory one with the same contract tests. Nothing else touches SQLite.
"""
