"""The tables, one file a noun. `store.models.tables` imports them all."""
