"""A labelled set for the screen of personal data and secrets. All values are made up or published as examples."""
