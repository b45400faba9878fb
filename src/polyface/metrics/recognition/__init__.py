"""Who is it: verification of pairs, identification among known people, retrieval from a gallery."""
