"""People recognised across caricatures and photos, the hard task trained first (Ming, Burie & Luqman 2021)."""
