"""The three processes: api accepts, processor settles, notifier tells. None imports another."""
