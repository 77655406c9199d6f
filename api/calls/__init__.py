"""Every call of the API that the clients make, as data: the request, and the type of its answer. One file a room."""
