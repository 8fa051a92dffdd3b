// Scores of a query with the keys of a block of slots, and weighted sums of values.
#pragma once

#include <utility>

#include "vectors.h"

namespace {

// Adds neighbours 2 H lanes wide: of (a, b) each group of 2 H lanes becomes one of H.
template <int H, int... I> inline Vec halve(Vec a, Vec b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (I / H * 2 * H + I % H)...) +
           __builtin_shufflevector(a, b, (I / H * 2 * H + H + I % H)...);
#else
    return __builtin_shuffle(a, b, Ints{(I / H * 2 * H + I % H)...}) +
           __builtin_shuffle(a, b, Ints{(I / H * 2 * H + H + I % H)...});
#endif
}

// The products of a query with H slots' keys: their sums, each over LANES / H lanes still.
template <int H> inline Vec products(const float* query, const float* keys, int64_t width) {
    if constexpr (H == 1) {
        Vec sum = vector(query) * vector(keys);
        for (int64_t d = LANES; d < width; d += LANES) sum += vector(query + d) * vector(keys + d);
        return sum;
    } else {
        return halve<LANES / H>(products<H / 2>(query, keys, width),
                                products<H / 2>(query, keys + H / 2 * width, width),
                                std::make_integer_sequence<int, LANES>());
    }
}

template <int R, int V, class T>
void weigh(const float* weights, int64_t stride, int64_t slots, const T* values, int64_t width, float* const* out) {
    for (int64_t d = 0; d < width; d += V * LANES) {
        Vec sum[R][V] = {};
        float whole[R] = {};
        for (int64_t s = 0; s < slots; s++)
            for (int v = 0; v < V; v++) {
                const Vec value = vector(values + s * width + d + v * LANES);
                for (int r = 0; r < R; r++) {
                    sum[r][v] += value * weights[r * stride + s];
                    if (v == 0) whole[r] += weights[r * stride + s];
                }
            }
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) store(out[r] + d + v * LANES, sum[r][v] / whole[r]);
    }
}

template <int R, class T>
void weigh_rows(int64_t rows, const float* weights, int64_t stride, int64_t slots, const T* values, int64_t width, float* const* out) {
    if (rows < R) {
        if constexpr (R > 1) weigh_rows<R - 1>(rows, weights, stride, slots, values, width, out);
    } else if (width % (4 * LANES) == 0) {
        weigh<R, 4>(weights, stride, slots, values, width, out);
    } else if (width % (2 * LANES) == 0) {
        weigh<R, 2>(weights, stride, slots, values, width, out);
    } else {
        weigh<R, 1>(weights, stride, slots, values, width, out);
    }
}

}  // namespace
