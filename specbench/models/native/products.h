// Projections: weights in panels, sums in registers.
#pragma once

#include <algorithm>

#include "threads.h"
#include "vectors.h"

extern "C" {

struct Linear {  // weight: panels; a halved one has panels of its two halves in turns
    const void* weight;
    const float* bias;
    int64_t in, out, halved;
};
}

namespace {

// Sums of R rows with one panel: out[r][o] = sum over k of x[r][k] w[k][o].
template <int R> inline void tile(const float* x, int64_t stride, int64_t in, const float* w, float* out) {
    Vec sum[R][VECTORS] = {};
    for (int64_t k = 0; k < in; k++, w += PANEL) {
        for (int line = 0; line < PANEL * 4; line += 64)
            __builtin_prefetch(reinterpret_cast<const char*>(w) + AHEAD + line);
        for (int v = 0; v < VECTORS; v++) {
            Vec weight = load<Vec>(w + v * LANES);
            for (int r = 0; r < R; r++) sum[r][v] += weight * x[r * stride + k];
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < VECTORS; v++) store(out + r * PANEL + v * LANES, sum[r][v]);
}

// Likewise in bfloat16: two inputs' weights of an output lie beside each other, as one number.
template <int R> inline void tile(const float* x, int64_t stride, int64_t in, const bf16* w, float* out) {
    Vec sum[R][VECTORS] = {};
    for (int64_t k = 0; k < in; k += 2, w += 2 * PANEL) {
        for (int line = 0; line < PANEL * 4; line += 64)
            __builtin_prefetch(reinterpret_cast<const char*>(w) + AHEAD + line);
        Bits both[VECTORS];
        for (int v = 0; v < VECTORS; v++) both[v] = load<Bits>(w + 2 * v * LANES);
        for (int v = 0; v < VECTORS; v++) {
            Vec weight = (Vec)(both[v] << 16);
            for (int r = 0; r < R; r++) sum[r][v] += weight * x[r * stride + k];
        }
        for (int v = 0; v < VECTORS; v++) {
            Vec weight = (Vec)(both[v] & 0xffff0000u);
            for (int r = 0; r < R; r++) sum[r][v] += weight * x[r * stride + k + 1];
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < VECTORS; v++) store(out + r * PANEL + v * LANES, sum[r][v]);
}

template <int R, class T>
void tiles(int64_t rows, const float* x, int64_t stride, int64_t in, const T* w, float* out) {
    if (rows == R) tile<R>(x, stride, in, w, out);
    else if constexpr (R > 1) tiles<R - 1>(rows, x, stride, in, w, out);
}

// Multiplies this thread's panels; use(row, first output, count, sums) takes each finished run.
template <class T, class Use>
void multiply(const Linear& linear, const float* x, int64_t stride, int64_t rows, int id, int n, Use use) {
    const int64_t size = linear.halved ? linear.halved : linear.out;
    const int64_t every = panels(size) * (linear.halved ? 2 : 1), pair = linear.halved ? 2 : 1;
    const int64_t first = every / pair * id / n * pair, end = every / pair * (id + 1) / n * pair;
    const T* weight = static_cast<const T*>(linear.weight);
    alignas(64) float sums[TILE * PANEL];
    const int64_t blocks = (rows + TILE - 1) / TILE;
    for (int64_t p = first; p < end; p++) {
        const int64_t index = p / pair, start = (p % pair) * linear.halved + index * PANEL;
        const int64_t count = std::min<int64_t>(PANEL, size - index * PANEL);
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t from = rows * b / blocks, take = rows * (b + 1) / blocks - from;
            tiles<TILE>(take, x + from * stride, stride, linear.in, weight + p * linear.in * PANEL, sums);
            for (int64_t r = 0; r < take; r++) {
                float* run = sums + r * PANEL;
                if (linear.bias)
                    for (int64_t o = 0; o < count; o++) run[o] += linear.bias[start + o];
                use(from + r, start, count, run);
            }
        }
    }
}

template <class T> struct Product {  // of a projection by itself
    const Linear& linear;
    const T *x, *residual;
    T* out;
    int64_t rows;
    float* wide;
    Barrier barrier;

    static void enter(void* self, int id, int n) { static_cast<Product*>(self)->run(id, n); }

    void run(int id, int n) {
        const int64_t in = linear.in;
        for (int64_t i = rows * id / n * in; i < rows * (id + 1) / n * in; i++) wide[i] = widen(x[i]);
        barrier.meet(n);
        multiply<T>(linear, wide, in, rows, id, n, [&](int64_t row, int64_t start, int64_t take, const float* sums) {
            const int64_t at = row * linear.out + start;
            for (int64_t o = 0; o < take; o++) narrow(residual ? sums[o] + widen(residual[at + o]) : sums[o], out + at + o);
        });
    }
};

template <class T> void pack(const Linear& linear, const T* rows, T* to) {
    constexpr int64_t PAIR = sizeof(T) == 2 ? 2 : 1;
    const int64_t size = linear.halved ? linear.halved : linear.out, pair = linear.halved ? 2 : 1;
    for (int64_t p = 0; p < panels(size) * pair; p++)
        for (int64_t k = 0; k < linear.in; k++)
            for (int64_t o = 0; o < PANEL; o++) {
                const int64_t row = p / pair * PANEL + o;
                to[p * linear.in * PANEL + k / PAIR * PAIR * PANEL + o * PAIR + k % PAIR] =
                    row < size ? rows[((p % pair) * linear.halved + row) * linear.in + k] : T(0);
            }
}

}  // namespace
