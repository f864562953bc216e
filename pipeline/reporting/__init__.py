"""What token shards hold, counted and drawn."""
