"""Token shards as a training stream reads them: listed, loaded ahead, shown as rows, ids or packed sequences."""
