"""From a judged cohort to a release: gate, export, cards, report, verification."""
