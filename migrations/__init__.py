"""Alembic migrations, files named by date; package data, so that an installed platform can migrate."""
