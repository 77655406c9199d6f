"""What the API and the workers share: settings, specs, tables, queries, the queue and the artifact root."""
