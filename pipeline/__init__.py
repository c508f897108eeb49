"""synthcohort: from a hospital's images to a synthetic cohort that may leave it, or to a clear statement of why it may not."""
