"""What providers list, held against what the registry says."""
