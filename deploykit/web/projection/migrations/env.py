"""What alembic runs: the migrations, on the connection that `web.database` gives it."""

from alembic import context

from deploykit.web.projection.tables import METADATA

config = getattr(context, "config", None)
if config is not None:  # else somebody just imports this module
    connection, versions = config.attributes["connection"], config.attributes["version_table"]
    context.configure(connection=connection, target_metadata=METADATA, version_table=versions, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
