"""Files of records, tables and conversations, read with the place of every fault."""
