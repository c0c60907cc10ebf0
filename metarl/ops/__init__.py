"""Pure numerics: returns, baselines, surrogates, the trust region. They know no environment and no policy."""
