"""`polyface compare-weightings`: one recipe under many weightings, with equal budgets."""
