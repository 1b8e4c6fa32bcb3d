"""The search for the best poles in real sections: Newton steps, candidates, exchanges."""
