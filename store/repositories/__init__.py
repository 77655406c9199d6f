"""Every query of the project that is not dispatch, one class a group of tables; none of them commits."""
