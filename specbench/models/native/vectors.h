// Vectors of floats in the width of the processor, and numbers of 16 bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, TILE = 8;
#elif defined(__AVX__)
constexpr int LANES = 8, TILE = 4;
#else
constexpr int LANES = 4, TILE = 8;
#endif
constexpr int VECTORS = 3, PANEL = VECTORS * LANES;  // TILE x VECTORS sums stay in registers
constexpr int QUERIES = 5;                           // rows whose values are summed together
constexpr int SCORED = 24;                           // rows whose scores are made together
constexpr int AHEAD = 2048;                          // bytes that a panel is fetched ahead

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint16_t Half __attribute__((vector_size(2 * LANES)));
typedef uint16_t bf16;

template <class T> inline T load(const void* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
template <class T> inline void store(void* to, const T& value) { std::memcpy(to, &value, sizeof value); }

inline float widen(float x) { return x; }
inline float widen(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    return load<float>(&bits);
}
inline void narrow(float x, float* to) { *to = x; }
inline void narrow(float x, bf16* to) {  // to the nearest, ties to even; a NaN stays one
    uint32_t bits = load<uint32_t>(&x);
    *to = x != x ? 0x7fc0 : bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline Vec vector(const float* from) { return load<Vec>(from); }
inline Vec vector(const bf16* from) {
    return (Vec)(__builtin_convertvector(load<Half>(from), Bits) << 16);
}

inline Vec exponential(Vec x) {  // Cephes' polynomial; exactly 0 below -87
    const Vec shift = Vec{} + 12582912.0f;
    Ints low = x < -87.0f;
    x = low ? Vec{} - 87.0f : x;
    x = x > 88.0f ? Vec{} + 88.0f : x;
    Vec n = (x * 1.44269504088896341f + shift) - shift;
    Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec p = Vec{} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
    return low ? Vec{} : p * (Vec)power;
}

inline float total(Vec v) {  // always in one order: halves, then their halves
    float lanes[LANES];
    store(lanes, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

inline float greatest(const float* from, int64_t count) {  // of whole vectors
    Vec most = load<Vec>(from);
    for (int64_t i = LANES; i < count; i += LANES) {
        const Vec other = load<Vec>(from + i);
        most = other > most ? other : most;
    }
    float lanes[LANES], found;
    store(lanes, most);
    found = lanes[0];
    for (float lane : lanes) found = lane > found ? lane : found;
    return found;
}

inline int64_t panels(int64_t outputs) { return (outputs + PANEL - 1) / PANEL; }
inline int64_t up(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

}  // namespace
