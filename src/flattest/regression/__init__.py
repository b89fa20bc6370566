"""Regression on a few unknown directions: what `MultiIndexRegressor` does, stage by stage.

The estimator looks for a few linear combinations of the features, the *directions*, on which the
targets depend, and predicts from them by Gaussian processes. In order:

1. **Checked parameters and data** (`settings`, `training_data`). Equal rows are merged, so that
   neither their order nor repetitions matter; features and targets get standard units.
2. **The schedule of fits** (`robust_fit`, `prediction.target_scale`, `outliers`). Stages 3 to 5 are
   run on the targets, and on their logarithms where these are positive and less skewed as such.
   Each fit is judged by how well it predicts every row from the others; rows far from that are left
   out of the next fit, and put back where a fit without them predicts them. The first fit, the one
   without targets far from the median and the best one search; others start from what the best so
   far compared.
3. **Starts** (`starts`). Guesses at the directions: what small networks (`regularisation_path`) and
   coarse processes of all features vary along, re-weighted by that and fitted again.
4. **The search** (`projection_search`). From a start with a few directions more than are needed, a
   process is fitted whose marginal likelihood is maximised over the directions as over all other
   parameters (`gaussian_process`, `kernels`, `cholesky`, `evidence`, `process_fit`, `denormals`);
   the direction without which the evidence is highest is dropped, and so on. Linear functions,
   functions of all features, other kernels, sums of functions of one direction each and a trend
   compete by the evidence, averaged over the errors of the directions (`occam`), and few rows also
   by how they are predicted by fits without them (`refits`).
5. **Averages** (`mixture`). Processes that may be as good as the best one count in the predictions,
   by how sure the difference is. With the units of the features and the targets, and the limits
   beyond which it is not followed (`prediction.limits`), the average is the link (`smooth_link`).
6. **The choice** (`robust_fit`). The fit of the best score is kept, averaged with the best one in
   the other units (targets or logarithms) unless one is clearly better. Its average gradient outer
   product, decomposed (`variation`), gives the directions in order of importance.
7. **The network** (`elimination`, `regularisation_path`). On these directions two-layer networks of
   least flatness are fitted, one per strength of the penalty; cross-validation chooses the
   strength. Folds also tell how far the network is trusted beside the processes (`trust`): it
   counts where the data say little, as beyond their range.
8. **The predictor** (`prediction`) holds what it takes to predict, in NumPy, and is what is stored;
   the fit hands it over as arrays (`handover`). Processes conditioned on rows give each target a
   law, whose intervals count noise, what is unknown of the link, and what is unknown of the
   directions.

With ``link="network"`` there are no processes. Instead of stages 2 to 6, networks as in stage 7 are
fitted on ever fewer directions (`elimination`), and a network predicts. `fitting` has a function
for either way, with one type of result. All constants that were tuned stand in `tuning`.
"""
