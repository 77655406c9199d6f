"""Where the rows of a data set come from."""

import sqlalchemy as sa
from alembic import op

revision = "20261127_origins"
down_revision = "20261127_projects"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; of what exists nothing is known."""
    op.add_column("datasets", sa.Column("origin", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    """Removes it."""
    op.drop_column("datasets", "origin")
