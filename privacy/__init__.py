"""Privacy attacks and their statistics, over arrays and callables: nothing here touches the disk."""
