"""perdure at home in notebooks: what things look like there, live views, ``%perdure``."""
