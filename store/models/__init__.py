"""The tables, one file a noun. Importing `store.models.base` alone does not import them; `store.models.tables` imports all."""
