"""What users write, parsed and validated: workers, builds, steps, groups, conditions."""
