//! Tests of the cost model: what it learns, from what, and what does not mislead it.

use super::*;

/// Costs of a made-up model in milliseconds.
fn affine(rows: usize, length: usize) -> f64 {
    1.4 + real(rows) * (0.03 + 0.011 * real(length))
}

/// Batches like `cost`, by a sequence of shapes repeated `times` times, each off by up to 5%.
fn learned(shapes: &[(usize, usize)], times: usize, cost: impl Fn(usize, usize) -> f64) -> CostModel {
    let mut model = CostModel::default();
    feed(&mut model, shapes, times, cost);
    model
}

fn feed(model: &mut CostModel, shapes: &[(usize, usize)], times: usize, cost: impl Fn(usize, usize) -> f64) {
    for (count, (rows, length)) in shapes.iter().cycle().take(shapes.len() * times).enumerate() {
        let off = 1.0 + 0.05 * (real(count) * 2.4).sin();
        model.observe(*rows, *length, Duration::from_secs_f64(cost(*rows, *length) * off / 1e3));
    }
}

#[track_caller]
fn assert_near(model: &CostModel, shape: (usize, usize), expected_ms: f64, within: f64) {
    let predicted = model.seconds(shape.0, shape.1) * 1e3;
    assert!((predicted / expected_ms - 1.0).abs() < within, "{shape:?}: {predicted} ms, {expected_ms} expected");
}

#[test]
fn an_affine_cost_is_learned_and_carried_on_to_shapes_never_run() {
    let model = learned(&[(1, 16), (8, 128), (2, 64), (16, 32), (4, 128)], 40, affine);
    for shape in [(1, 16), (1, 128), (8, 64), (32, 32), (32, 128)] {
        assert_near(&model, shape, affine(shape.0, shape.1), 0.08);
    }
}

#[test]
fn what_a_constant_shape_cannot_tell_stays_as_it_was() {
    let mut model = learned(&[(1, 16), (8, 128), (2, 64), (16, 32)], 40, affine);
    feed(&mut model, &[(1, 128)], 3_000, affine);
    assert_near(&model, (16, 64), affine(16, 64), 0.1);
    // And what was never anything but constant is finite, and right where it was seen.
    let model = learned(&[(1, 128)], 3_000, affine);
    assert_near(&model, (1, 128), affine(1, 128), 0.05);
    assert!(model.seconds(32, 64).is_finite() && model.seconds(32, 64) > 0.0);
    let model = learned(&[(1, 1), (4, 1), (16, 1)], 100, |rows, _| 1.0 + 2.0 * real(rows));
    assert_near(&model, (32, 1), 65.0, 0.05);
}

#[test]
fn a_stall_changes_next_to_nothing() {
    let mut model = learned(&[(1, 64), (8, 64), (4, 64)], 40, affine);
    model.observe(8, 64, Duration::from_secs_f64(affine(8, 64) / 100.0));
    assert_near(&model, (8, 64), affine(8, 64), 0.12);
}

#[test]
fn a_step_of_the_cost_is_followed_for_shapes_that_are_not_run_as_well() {
    let mut model = learned(&[(1, 64), (8, 64), (4, 32)], 60, affine);
    feed(&mut model, &[(8, 64)], 30, |rows, length| 2.0 * affine(rows, length));
    assert_near(&model, (8, 64), 2.0 * affine(8, 64), 0.1);
    assert_near(&model, (1, 64), 2.0 * affine(1, 64), 0.2);
    feed(&mut model, &[(8, 64)], 30, affine);
    assert_near(&model, (8, 64), affine(8, 64), 0.1);
    assert_near(&model, (1, 64), affine(1, 64), 0.25);
}

#[test]
fn no_overhead_is_seen_where_there_is_none() {
    for cost in [|rows: usize, _| 5.0 * real(rows), |rows: usize, _| 3.0 * real(rows).powf(1.5)] {
        let model = learned(&[(1, 1), (2, 1), (4, 1), (8, 1)], 50, cost);
        for rows in 1..8 {
            let saved = model.seconds(rows, 1) + model.seconds(1, 1) - model.seconds(rows + 1, 1);
            assert!(saved < 0.05 * model.seconds(1, 1), "{rows}: {saved}");
        }
    }
}

#[test]
fn a_size_beyond_which_it_gets_dear_is_found() {
    // Cheaper with each row up to eight, then out of the cache.
    let cost = |rows: usize, _| if rows <= 8 { 2.0 + real(rows) } else { 2.5 * real(rows) };
    let model = learned(&[(1, 1), (4, 1), (8, 1), (32, 1), (16, 1), (2, 1)], 100, cost);
    let each = |rows: usize| model.seconds(rows, 1) / real(rows);
    assert!(each(8) < each(1) && each(8) < each(16) && each(8) < each(32), "{} {} {}", each(1), each(8), each(32));
    for rows in [1, 8, 32] {
        assert_near(&model, (rows, 1), cost(rows, 1), 0.15);
    }
}

#[test]
fn a_margin_is_for_what_is_common_and_not_for_a_stall_now_and_then() {
    let mut model = learned(&[(1, 64), (8, 64)], 200, affine);
    assert!(model.margin() < 1.1, "{}", model.margin());
    for _ in 0..8 {
        model.observe(8, 64, Duration::from_secs_f64(affine(8, 64) * 3.0 / 1e3));
        feed(&mut model, &[(1, 64), (8, 64)], 10, affine);
    }
    assert!(model.margin() < 1.2, "{}", model.margin());
    let mut scattering = learned(&[(1, 64)], 200, affine);
    for round in 0..256 {
        let times = if round % 3 == 0 { 1.3 } else { 0.9 };
        scattering.observe(1, 64, Duration::from_secs_f64(affine(1, 64) * times / 1e3));
    }
    assert!(scattering.margin() > 1.15, "{}", scattering.margin());
}

#[test]
fn a_clock_that_stands_still_teaches_nothing() {
    let mut model = CostModel::default();
    model.observe(4, 4, Duration::ZERO);
    assert!(!model.is_known() && model.seconds(4, 4) == 0.0 && model.coefficients().is_none());
}

#[test]
fn what_was_measured_beforehand_is_known_from_the_start() {
    let dear = |rows: usize, _| if rows == 1 { 20.0 } else { 50.0 * real(rows) };
    for cost in [affine, dear] {
        let shapes = [(1, 32), (1, 128), (2, 32), (2, 128), (4, 32), (4, 128), (8, 32), (8, 128)];
        let run = |shape: &(usize, usize)| (*shape, Duration::from_secs_f64(cost(shape.0, shape.1) / 1e3));
        let model = CostModel::measured(shapes.iter().cycle().take(24).map(run));
        for shape in shapes {
            assert_near(&model, shape, cost(shape.0, shape.1), 0.35);
        }
        assert!(model.recent(8, 512) >= 3, "no size is tried that was measured");
        let merging = model.seconds(2, 128) / (2.0 * model.seconds(1, 128));
        let real = cost(2, 128) / (2.0 * cost(1, 128));
        assert!((merging < 1.0) == (real < 1.0), "{merging}, {real}");
    }
}
