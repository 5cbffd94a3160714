"""Another domain: rows of several sources brought to a target without labels, and heads fitted for it."""
