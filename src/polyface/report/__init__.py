"""What a person reads: results files, tables, plots, faces, pages."""
