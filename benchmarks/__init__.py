"""What the project promises about speed, measured against peers and floors in the same run."""
