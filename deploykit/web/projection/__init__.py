"""What the bus has told, kept in a database that may be lost: tables, folding of messages, queries."""
