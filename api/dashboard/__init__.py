"""The pages: HTML over the wire models of the API, without a build step."""
