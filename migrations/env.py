"""Runs migrations over the connection that `store.database.migrate` hands in, or over the configured database's."""

from alembic import context
from sqlalchemy import Connection

from store.database import make_engine
from store.models.tables import Base
from store.settings import Settings


def run(connection: Connection) -> None:
    """Runs what the command asked for; SQLite's tables are altered by copying them (batch mode)."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    engine = make_engine(Settings.from_environment(), is_migrating=True)
    with engine.begin() as own:
        run(own)
    engine.dispose()
