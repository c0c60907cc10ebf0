"""Run folders: what was asked, what happened, and all that is needed to go on."""
