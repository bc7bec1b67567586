import datafree as df

digits, test = df.load_data("digits", "train"), df.load_data("digits", "test")
spec = df.InputSpec(shape=digits.shape, classes=digits.classes)

# The publisher has the data: a teacher, and a record of its activations.
teacher = df.new_model("hinton256", spec, seed=0)
df.train(teacher, digits, df.Schedule(epochs=40, learning_rate=2e-3))
known = df.record(teacher, digits, df.preset("sharp", teacher, digits))

# The deployer has the teacher and the record, and no data.
student = df.new_model("hinton128", spec, seed=0)
images = df.fresh_images("distribution", teacher, known, images=2560)
df.distill(teacher, student, images, df.Distillation(epochs=30, batch=64))

print(
    f"record: {known.nbytes():,} bytes, forecast membership attack: "
    f"AUC {df.forecast_auc(known.released_statistics(teacher)):.3f}"
)
print(f"teacher {df.evaluate(teacher, test).accuracy} %, student without data {df.evaluate(student, test).accuracy} %")
