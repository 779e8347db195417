"""What the drivers of machines share: they run one request at a time through a transport."""
